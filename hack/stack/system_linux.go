package stack

import "syscall"

// supported returns why a stack cannot run on this operating system.
func supported() error { return nil }

// endWithParent has the kernel send the child this signal when the thread that started it ends.
func endWithParent(attributes *syscall.SysProcAttr, signal syscall.Signal) {
	attributes.Pdeathsig = signal
}
