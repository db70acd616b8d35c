package systemtest

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"orderflow.internal/hack/stack"
)

// allowed are the CPUs that this program may use.
func allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &set); err != nil {
		return nil, err
	}
	var all []int
	for cpu := 0; len(all) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all, nil
}

// pin keeps a process with all its threads and descendants, and what they start from now on, on some CPUs.
func pin(root int, cpus []int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	family, err := stack.Family(root)
	if err != nil {
		return err
	}
	for _, process := range family {
		if err := pinThreads(process.PID, &set); err != nil {
			return err
		}
	}
	return nil
}

// pinThreads pins every thread of one process. One that it starts meanwhile inherits from its parent, which may not be
// pinned yet: hence again, until there is no new one.
func pinThreads(pid int, set *unix.CPUSet) error {
	for pinned := map[int]bool{}; ; {
		threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if errors.Is(err, os.ErrNotExist) {
			return nil // ended meanwhile
		}
		if err != nil {
			return err
		}
		before := len(pinned)
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil {
				return err
			}
			if pinned[id] {
				continue
			}
			if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			pinned[id] = true
		}
		if len(pinned) == before {
			return nil
		}
	}
}
