"""Long-range tasks: data, recipes and the command `lra-tasks` that trains, evaluates and reports."""
