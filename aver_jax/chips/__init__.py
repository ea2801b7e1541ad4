"""What programs cost on chips that are not there: compiled for them, counted, added up."""
