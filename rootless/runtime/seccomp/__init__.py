"""System call filters: profiles, their compiled programs, and who answers the calls they report."""
