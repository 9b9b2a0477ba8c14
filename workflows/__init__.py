"""What happens: one module per Workflow, one function per step, in running order. What a step does is in kaito_hera."""
