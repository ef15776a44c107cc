"""What all steps of one build share: its options and workers, the state between two steps, the events of its steps."""
