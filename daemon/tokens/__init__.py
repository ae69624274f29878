"""Bearer tokens: what one may do, how its secret is made and recognised, and where the tokens of a server are kept."""
