"""What tests of stores need: servers without Docker, stores that misbehave, an auditor, one suite for every store."""
