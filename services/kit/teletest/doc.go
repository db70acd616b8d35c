// Package teletest receives OTLP in tests and turns what came into something
// that a test can wait for and compare: the spans of a trace, and their tree
// as text.
package teletest
