// Package postgres is how the services use PostgreSQL, through pgx.
//
// # Connections
//
// [Open] makes a pool that survives what happens to databases: a failover, a pooler
// in between, a peer that says nothing. Every statement and every wait for a
// connection has a limit, silent connections are given up within five seconds, a URL
// in a file is read again for every new connection, and times come back in UTC.
//
// # Statements and transactions
//
// [All], [One] and [Each] run a query and read its rows. [Tx] runs a transaction,
// [TxBatch] one of two round trips, and [Exclusive] one that a single replica has at
// a time.
//
// # Errors
//
// [Classify] tells errors that pass by themselves from errors that do not, and both
// from a COMMIT that nobody has answered: that one may have taken effect.
//
// # Schema
//
// [Migrate] brings the database up to date and gives the service's role its limits.
// [KeepStatistics] keeps the planner's idea of growing tables fresh.
//
// # Health and time
//
// [Health] is the readiness check. [Clock] is the database's clock, which all replicas
// share.
package postgres
