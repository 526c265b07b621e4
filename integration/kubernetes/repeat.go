package kubernetes

import (
	"context"
	"time"
)

// repeat looks at something at once and after every pause, until the context is done. An
// error is said once, until it is over or another.
func repeat(ctx context.Context, pause time.Duration, look func(context.Context) error, say func(error)) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	said := ""
	for {
		err := look(ctx)
		switch {
		case err == nil:
			said = ""
		case err.Error() != said && ctx.Err() == nil:
			say(err)
			said = err.Error()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
