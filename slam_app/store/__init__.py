"""All the SQL of the app. `db` opens and writes; one module per aggregate; `migrations` has the schema."""
