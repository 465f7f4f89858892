"""What routing did and saved, from the database; every saving stands beside what is known of quality."""
