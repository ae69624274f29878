"""Where secret values come from, and the prompt that asks for them."""
