package proxy

import (
	"errors"
	"io"
	"net/http"

	"golang.org/x/sync/semaphore"

	"orderflow.internal/kit/web"
)

// freeBody is how much of each body, in bytes, is not taken from the budget of
// all: what an ordinary request has, so that clients that send much, or hold
// back the end of much, cannot keep others from being served. The number of
// connections bounds the sum.
const freeBody int64 = 4 << 10

// Budget bounds the bytes of request bodies that a process holds. A body holds
// its share until its request has been answered.
type Budget struct{ bytes *semaphore.Weighted }

// NewBudget returns a budget of the given number of bytes.
func NewBudget(bytes int64) *Budget { return &Budget{semaphore.NewWeighted(bytes)} }

// read reads a body of at most limit bytes, of which announced are said to come
// (-1: not said). It is charged for what has arrived, not for what was
// announced. The caller gives back what was charged, also after an error.
func (b *Budget) read(body io.Reader, announced, limit int64) (read []byte, charged int64, err error) {
	first := min(freeBody, limit+1) // one more to see the end
	if announced >= 0 {
		first = min(first, announced+1)
	}
	read = make([]byte, 0, first)
	for {
		if len(read) == cap(read) {
			size := min(2*int64(cap(read)), limit+1)
			more := size - int64(cap(read))
			if !b.bytes.TryAcquire(more) {
				return nil, charged, web.Unavailable("The gateway has too many large requests in hand.")
			}
			charged += more
			read = append(make([]byte, 0, size), read...)
		}
		n, err := body.Read(read[len(read):cap(read)])
		read = read[:len(read)+n]
		var tooLong *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			return read, charged, nil
		case errors.As(err, &tooLong):
			return nil, charged, err
		case err != nil:
			return nil, charged, web.BadParameter("body", "ended early or did not arrive in time").Because(err)
		}
	}
}
