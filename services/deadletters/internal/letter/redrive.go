package letter

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// RedriveState is how far a redrive is.
type RedriveState string

// States of a redrive. Draft is the plan.
const (
	Draft     RedriveState = "draft"
	Running   RedriveState = "running"
	Paused    RedriveState = "paused"
	Stopped   RedriveState = "stopped" // by itself
	Done      RedriveState = "done"
	Cancelled RedriveState = "cancelled"
)

// Outcome is what became of one letter in a redrive.
type Outcome string

// Outcomes. Sent is none yet.
const (
	OutcomePlanned Outcome = "planned"
	OutcomeSent    Outcome = "sent"
	OutcomeHandled Outcome = "handled"
	OutcomeDied    Outcome = "died"
	OutcomeUnknown Outcome = "unknown"
	OutcomeSkipped Outcome = "skipped"
)

// Outcomes are all of them.
var Outcomes = []Outcome{OutcomePlanned, OutcomeSent, OutcomeHandled, OutcomeDied, OutcomeUnknown, OutcomeSkipped}

// Step is what a person does with a redrive.
type Step string

// Steps.
const (
	Start  Step = "start"
	Pause  Step = "pause"
	Resume Step = "resume"
	Cancel Step = "cancel"
)

// NotNowError means that a redrive's state does not allow the step.
type NotNowError struct{ State RedriveState }

func (e *NotNowError) Error() string {
	return fmt.Sprintf("a redrive that is %s does not allow this", e.State)
}

// After returns the state after a step.
func (s RedriveState) After(step Step) (RedriveState, error) {
	switch {
	case step == Start && s == Draft:
		return Running, nil
	case step == Pause && s == Running:
		return Paused, nil
	case step == Resume && (s == Paused || s == Stopped):
		return Running, nil
	case step == Cancel && s != Done && s != Cancelled:
		return Cancelled, nil
	}
	return s, &NotNowError{s}
}

// Redrive is letters on their way back to their queues.
type Redrive struct {
	ID              uuid.UUID       `json:"redriveId"`
	State           RedriveState    `json:"state"`
	Why             string          `json:"why"`
	By              string          `json:"by"`
	Rate            int             `json:"rate"` // letters in a second
	CreatedAt       time.Time       `json:"createdAt"`
	StartedAt       *time.Time      `json:"startedAt"`
	EndedAt         *time.Time      `json:"endedAt"`
	StoppedBecause  *string         `json:"stoppedBecause"`
	StoppedLetterID *int64          `json:"stoppedLetterId"`
	Total           int             `json:"total"`
	Counts          map[Outcome]int `json:"-"`
	Queues          []QueueCount    `json:"queues"`
	OldestDied      *time.Time      `json:"oldestDiedAt"`
	NewestDied      *time.Time      `json:"newestDiedAt"`
	Orders          Orders          `json:"orders"`
}

// Orders counts the different orders of a redrive, and those that orders was asked
// about and answered for: all, and those that have ended.
type Orders struct {
	Total int `json:"total"`
	Asked int `json:"asked"`
	Final int `json:"final"`
}

// QueueCount is how many letters of a plan return to a queue.
type QueueCount struct {
	Queue   string `json:"queue"`
	Letters int    `json:"letters"`
}

// Taken is a letter that belongs to another running redrive.
type Taken struct {
	LetterID  int64
	RedriveID uuid.UUID
}

// TakenError says which letters belong to other running redrives.
type TakenError struct{ Letters []Taken }

func (e *TakenError) Error() string {
	return fmt.Sprintf("%d letters belong to other running redrives", len(e.Letters))
}

// MaxRate is the most letters in a second that a redrive may ask for.
const MaxRate = 1000

// sizes of the first batches: a canary, and what trust it earns.
var sizes = [...]int{1, 2, 5, 20, 50, 100, 200, 500}

// Size is how many letters a redrive sends in its batch number n, counted from 0:
// never more than it may send in a second.
func Size(n, rate int) int { return min(sizes[min(n, len(sizes)-1)], max(rate, 1)) }

// Spacing is how long a batch of that size keeps the next one waiting.
func Spacing(size, rate int) time.Duration {
	return time.Duration(size) * time.Second / time.Duration(max(rate, 1))
}

// Slice is how many letters are published at once, at most. What else goes to
// their queues does not wait behind more than that. Smaller ones cost more: their
// queues' consumers and this service commit for each slice, and on a busy machine
// commits hold up others more than a few letters side by side do.
const Slice = 20

// Sending is one letter that a redrive has to publish.
type Sending struct {
	RedriveID, Attempt uuid.UUID
	Rate               int // letters in a second
	Letter             Letter
}

// Entry is one line of the history.
type Entry struct {
	ID        int64      `json:"-"`
	At        time.Time  `json:"at"`
	By        string     `json:"by"`
	Action    string     `json:"action"`
	Why       string     `json:"why"`
	Detail    string     `json:"detail"`
	RedriveID *uuid.UUID `json:"redriveId"`
	LetterID  *int64     `json:"letterId"`
	GroupID   *int64     `json:"groupId"`
	Letters   int        `json:"letters"`
}

// Itself is who did what nobody asked for.
const Itself = "deadletters"

// Filter selects letters; what is zero selects all.
type Filter struct {
	IDs          []int64
	Queue        string
	GroupID      int64
	OrderID      *uuid.UUID
	State        State
	Text         string
	Since, Until *time.Time
	RedriveID    *uuid.UUID
	Unknown      bool // in a selection: unknown ones, too
}

// Empty tells that everything is selected.
func (f *Filter) Empty() bool {
	return len(f.IDs) == 0 && f.Queue == "" && f.GroupID == 0 && f.OrderID == nil && f.Text == "" && f.Since == nil &&
		f.Until == nil
}

// RedriveLetter is one letter of a redrive.
type RedriveLetter struct {
	LetterID int64      `json:"letterId"`
	Queue    string     `json:"queue"`
	GroupID  int64      `json:"groupId"`
	OrderID  *uuid.UUID `json:"orderId"`
	Outcome  Outcome    `json:"outcome"`
	SentAt   *time.Time `json:"sentAt"`
	EndedAt  *time.Time `json:"endedAt"`
}
