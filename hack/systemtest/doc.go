// Package systemtest holds tests of the whole system as it is run: the built services, RabbitMQ and PostgreSQL as
// processes of their own, which the tests stop, kill, starve and lie to. hack/test system runs them.
//
// They share one stack and run one after the other; each starts the services it needs and stops them in order, so that
// every test also shows a clean end. The figures they measure are in their logs (-v).
package systemtest
