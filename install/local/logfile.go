package local

import (
	"fmt"
	"io"
	"sync"

	"gopkg.in/natefinch/lumberjack.v2"
)

// logFile takes what a process writes, and never refuses it: an error here would close
// the process's standard output, and its next line would end it (SIGPIPE). What a full
// disk does not take is lost, and counted in the log where it goes on.
type logFile struct {
	mu   sync.Mutex // guards what follows
	file io.WriteCloser
	lost int // bytes
	why  error
}

// newLogFile opens a log that is bounded.
func newLogFile(path string) *logFile {
	return &logFile{file: &lumberjack.Logger{Filename: path, MaxSize: 16, MaxBackups: 1}} // megabytes
}

// Write implements [io.Writer].
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost > 0 {
		if _, err := fmt.Fprintf(l.file, "\nheddle: %d bytes of this log are lost: %v\n", l.lost, l.why); err != nil {
			l.lost += len(p)
			return len(p), nil
		}
		l.lost = 0
	}
	if n, err := l.file.Write(p); err != nil {
		l.lost, l.why = len(p)-n, err
	}
	return len(p), nil
}

// Close implements [io.Closer].
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
