"""The files that a job leaves: which they are, how they leave its sandbox, and how they come to where they are wanted."""
