"""Commands of `kaito-hera` that need no cluster, a module each; imported when they are asked for."""
