// Package console prints the progress of the developers' commands: a line for each finished step with its time, and a
// reminder of one that takes long.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Console writes steps and text to one writer from any number of goroutines.
type Console struct {
	reminder time.Duration // when a step that is under way is first mentioned; then each time it has taken twice as long

	mu  sync.Mutex
	out io.Writer
}

// New returns a console on the writer.
func New(out io.Writer) *Console { return &Console{out: out, reminder: 15 * time.Second} }

// WithoutReminders makes the console show only what has ended: for what is read later.
func (c *Console) WithoutReminders() *Console {
	c.reminder = 24 * time.Hour
	return c
}

// Printf prints a line of text.
func (c *Console) Printf(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

// Write prints text as it is.
func (c *Console) Write(text []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(text)
}

// Step runs a part and prints how long it took; steps may run at the same time.
func (c *Console) Step(ctx context.Context, what string, part func(context.Context) error) error {
	return c.Watch(ctx, what, func(ctx context.Context, _ func(string)) error { return part(ctx) })
}

// Watch is a Step whose part can say what it does or waits for just now, which the reminders show.
func (c *Console) Watch(ctx context.Context, what string,
	part func(ctx context.Context, say func(string)) error) error {
	started := time.Now()
	var mu sync.Mutex
	var detail string
	ended := make(chan struct{})
	var reminding sync.WaitGroup
	reminding.Go(func() {
		for pause := c.reminder; ; pause = time.Since(started) {
			select {
			case <-ended:
				return
			case <-time.After(pause):
				mu.Lock()
				c.Printf("  … %-44s %.1f s  %s", what, time.Since(started).Seconds(), detail)
				mu.Unlock()
			}
		}
	})
	err := part(ctx, func(text string) {
		mu.Lock()
		defer mu.Unlock()
		detail = text
	})
	close(ended)
	reminding.Wait()
	mark := "✓"
	switch {
	case errors.Is(err, context.Canceled):
		mark = "-"
	case err != nil:
		mark = "✗"
	}
	c.Printf("  %s %-44s %.1f s", mark, what, time.Since(started).Seconds())
	return err
}
