"""Every figure that the README or a report quotes comes from a command here."""
