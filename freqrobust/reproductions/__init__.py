"""Published experiments that can be reproduced with one command."""
