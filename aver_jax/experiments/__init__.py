"""Studies: many trainings over a grid, and a results page that says what they show."""
