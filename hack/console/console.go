// Package console prints the progress of the developers' commands: one line per finished step with its time, and on a
// terminal a line of what is under way.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Console writes steps and text to one writer from any number of goroutines.
type Console struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	color    bool
	running  []*step
	drawn    bool // a status line stands below the text
	stop     chan struct{}
}

type step struct {
	what    string
	started time.Time
	told    time.Duration // of the last reminder
	detail  string        // what it does or waits for just now
}

// Terminal reports whether the file is a terminal.
func Terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// New returns a console on the file. NO_COLOR (any value) turns color off, see no-color.org.
func New(f *os.File) *Console {
	terminal := Terminal(f)
	return &Console{out: f, terminal: terminal, color: terminal && os.Getenv("NO_COLOR") == ""}
}

// Colored reports whether color may be used.
func (c *Console) Colored() bool { return c.color }

// Paint returns the text in a color, if color may be used.
func (c *Console) Paint(color Color, text string) string { return Paint(c.color, color, text) }

// Printf prints a line of text.
func (c *Console) Printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
	fmt.Fprintf(c.out, format+"\n", args...)
	c.draw()
}

// Write prints text as it is; a status line never gets into it.
func (c *Console) Write(text []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
	n, err := c.out.Write(text)
	if strings.HasSuffix(string(text), "\n") {
		c.draw()
	}
	return n, err
}

// Step runs a part and prints how long it took; steps may run at the same time.
func (c *Console) Step(ctx context.Context, what string, part func(context.Context) error) error {
	return c.Watch(ctx, what, func(ctx context.Context, _ func(string)) error { return part(ctx) })
}

// Watch is a Step whose part can say, and say anew, what it does or waits for just now.
func (c *Console) Watch(ctx context.Context, what string, part func(ctx context.Context, say func(string)) error) error {
	s := &step{what: what, started: time.Now()}
	c.begin(s)
	err := part(ctx, func(detail string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.detail = detail
	})
	c.end(s, err)
	return err
}

func (c *Console) begin(s *step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = append(c.running, s)
	if c.stop == nil {
		c.stop = make(chan struct{})
		go c.tick(c.stop)
	}
}

func (c *Console) end(s *step, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range c.running {
		if r == s {
			c.running = append(c.running[:i], c.running[i+1:]...)
			break
		}
	}
	if len(c.running) == 0 {
		close(c.stop)
		c.stop = nil
	}
	c.clear()
	mark := Paint(c.color, Green, "✓")
	switch {
	case errors.Is(err, context.Canceled):
		mark = Paint(c.color, Yellow, "-")
	case err != nil:
		mark = Paint(c.color, Red, "✗")
	}
	fmt.Fprintf(c.out, "  %s %-44s %s\n", mark, s.what, Paint(c.color, Gray, elapsed(s.started)))
	c.draw()
}

// tick keeps the status line going; where there is no terminal it reminds of long steps instead.
func (c *Console) tick(stop <-chan struct{}) {
	every := time.NewTicker(200 * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-stop:
			return
		case <-every.C:
		}
		c.mu.Lock()
		if c.terminal {
			c.clear()
			c.draw()
		} else {
			c.remind()
		}
		c.mu.Unlock()
	}
}

const reminder = 15 * time.Second

func (c *Console) remind() {
	for _, s := range c.running {
		if took := time.Since(s.started); took-s.told >= reminder {
			s.told = took
			fmt.Fprintf(c.out, "  … %-44s %s  %s\n", s.what, elapsed(s.started), s.detail)
		}
	}
}

func (c *Console) clear() {
	if c.drawn {
		fmt.Fprint(c.out, "\r\x1b[K")
		c.drawn = false
	}
}

func (c *Console) draw() {
	if !c.terminal || len(c.running) == 0 {
		return
	}
	parts := make([]string, len(c.running))
	for i, s := range c.running {
		parts[i] = strings.TrimSpace(s.what + " " + elapsed(s.started) + " " + s.detail)
	}
	line := []rune("… " + strings.Join(parts, " · "))
	const width = 78 // a longer line would wrap and could not be cleared
	if len(line) > width {
		line = append(line[:width-1], '…')
	}
	fmt.Fprint(c.out, "  "+Paint(c.color, Gray, string(line)))
	c.drawn = true
}

func elapsed(since time.Time) string { return fmt.Sprintf("%.1f s", time.Since(since).Seconds()) }
