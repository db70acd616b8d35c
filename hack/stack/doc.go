// Package stack runs Orderflow on this machine: a private RabbitMQ, a private PostgreSQL and the services, each an
// ordinary process that can be stopped, killed and started again on its own.
//
// Everything a stack owns lives in one folder (.run/<name>): data, logs, generated passwords and a record of each
// process. Instances of the machine's own are never touched: ports, data, Erlang cookie and epmd are the stack's own,
// and a signal goes only to a process whose id and start time are on record.
package stack
