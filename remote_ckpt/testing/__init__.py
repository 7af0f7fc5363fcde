"""What tests of object stores need: real servers that start without Docker, and the suite every store passes."""
