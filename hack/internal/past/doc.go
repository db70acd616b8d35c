// Package past fills the databases of a system with orders that it might have taken over months, so that tests and
// measurements need not wait for years: orders, reservations, histories, profiles, idempotency keys, and the outboxes'
// published events as far back as those are kept. The rows are those that the services themselves would have written,
// and agree across the databases.
package past
