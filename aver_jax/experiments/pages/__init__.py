"""Results pages: tables computed here, prose in templates."""
