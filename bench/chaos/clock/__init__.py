"""What processes of a chaos run import at their start."""
