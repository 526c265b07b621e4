package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/heddle-mesh/heddle/install/local"
)

// withLifeline ends a child of "heddle up" in good order when its supervisor is gone,
// even by SIGKILL: nothing must go on that 'heddle ps' does not show.
func withLifeline(ctx context.Context) context.Context {
	text, ok := os.LookupEnv(local.LifelineVariable)
	if !ok {
		return ctx
	}
	os.Unsetenv(local.LifelineVariable)
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return ctx
	}
	syscall.CloseOnExec(fd)     // children of ours are our own business
	syscall.CloseOnExec(fd + 1) // the lock: stays open until our end
	// The supervisor read what we write. Without it a line of log must not be our end while
	// there is something to take down. Notify and not Ignore, which programs would inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	file := os.NewFile(uintptr(fd), "lifeline")
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, file)
		cancel(errors.New("the supervisor is gone"))
	}()
	return ctx
}
