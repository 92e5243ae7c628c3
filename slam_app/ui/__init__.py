"""What pages share: who is this (`auth`), the database (`app`), and repeated widgets (`widgets`)."""
