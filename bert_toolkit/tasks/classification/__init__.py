"""Classification: tasks and own data, network, scores, reports."""
