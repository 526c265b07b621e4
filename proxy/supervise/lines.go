package supervise

import (
	"bytes"
	"io"
	"sync"
)

// MaxLine is the longest line that a LineWriter keeps together, in bytes.
const MaxLine = 16 << 10

// Lines lets several programs share one output, line by line.
type Lines struct {
	mu  sync.Mutex // guards out
	out io.Writer
}

// NewLines shares out.
func NewLines(out io.Writer) *Lines { return &Lines{out: out} }

// A LineWriter puts a prefix before each line that a program writes. Lines of
// more than MaxLine bytes are broken into several. Close writes what has no
// line end yet. It never fails, so that a full disk or a closed terminal does
// not stop the program.
type LineWriter struct {
	lines  *Lines
	prefix []byte

	mu   sync.Mutex // guards line
	line []byte     // prefix and the beginning of a line, or empty
}

// Writer returns a writer for one program.
func (l *Lines) Writer(prefix string) *LineWriter {
	return &LineWriter{lines: l, prefix: []byte(prefix)}
}

func (w *LineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	written := len(p)
	for len(p) > 0 {
		if len(w.line) == 0 {
			w.line = append(w.line, w.prefix...)
		}
		room := MaxLine - (len(w.line) - len(w.prefix))
		switch end := bytes.IndexByte(p, '\n'); {
		case end >= 0 && end <= room:
			w.line = append(w.line, p[:end]...)
			p = p[end+1:]
			w.flush()
		case len(p) > room:
			w.line = append(w.line, p[:room]...)
			p = p[room:]
			w.flush()
		default:
			w.line = append(w.line, p...)
			p = nil
		}
	}
	return written, nil
}

// Close writes the unfinished line, if any.
func (w *LineWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.line) > 0 {
		w.flush()
	}
	return nil
}

// flush writes the line in one piece; mu is held.
func (w *LineWriter) flush() {
	w.line = append(w.line, '\n')
	w.lines.mu.Lock()
	_, _ = w.lines.out.Write(w.line)
	w.lines.mu.Unlock()
	w.line = w.line[:0]
}
