// Command cmd writes the RabbitMQ definitions that the charts render to, or
// with --check fails when the committed ones differ.
package main

import (
	"flag"
	"fmt"
	"os"

	"orderflow.internal/hack/topology"
)

func main() {
	root := flag.String("root", "..", "the repository's root")
	check := flag.Bool("check", false, "fail if "+topology.Path+" is not up to date, and write nothing")
	flag.Parse()
	run := topology.Write
	if *check {
		run = topology.Check
	}
	if err := run(*root); err != nil {
		fmt.Fprintln(os.Stderr, "topology:", err)
		os.Exit(1)
	}
}
