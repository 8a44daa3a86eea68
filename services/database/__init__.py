"""The services' SQL: one set of tables, one set of migrations, two databases."""
