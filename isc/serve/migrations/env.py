"""The environment of the migrations: they run on the connection that `Database` hands over."""

from alembic import context

from isc.serve.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
