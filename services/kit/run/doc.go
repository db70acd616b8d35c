// Package run is the life of a process: configuration from the environment,
// signals, exit codes, and a group of loops that is stopped in order.
//
// # Start
//
// [Main] reads the whole configuration before anything opens. A wrong one ends
// the process with code 2 and a line for every variable that is wrong. Help is
// generated from the same struct tags that are read:
//
//	env:"NAME"          the variable; set to "" it counts as not set
//	envDefault:"value"  what it is otherwise ([Program.Defaults] wins over it)
//	help:"text"         what it means, with its unit
//	secret:"true"       its value is never printed
//
// Besides serving, which is what a program does without arguments, it can have
// commands for operators ([Program.Commands]) with the same configuration.
//
// # Stop
//
// SIGTERM and SIGINT end the context that Serve runs with; a second signal
// ends the process at once. A [Group] then stops its loops one after another,
// the last added first, so that what takes work in (the HTTP server) is gone
// before what the work needs (consumers, relay, publisher). Telemetry is
// flushed last of all, by Main.
package run
