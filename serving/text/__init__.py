"""Text: chat templates, tokenising, and tokens back to text as they come. Nothing here knows engines or HTTP."""
