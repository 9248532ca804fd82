"""Everything `./dev up` starts on one machine; none of it is needed in production."""
