package supervise

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// SidecarConfig says what a Sidecar consists of.
type SidecarConfig struct {
	// Envoy is started again whatever its Restart says.
	Envoy Spec
	// App is never restarted here. A nil Start means that the application is
	// somebody else's: Envoy runs until the context is done.
	App Spec
	// Drain asks Envoy's peers to go elsewhere ([envoy.Admin.DrainListeners]);
	// nil leaves that out. It has drainLimit for it.
	Drain func(ctx context.Context) error
	// DrainTime is how long they get for it.
	DrainTime time.Duration
}

// drainLimit bounds Drain: an end that was asked for must not hang on peers.
const drainLimit = 8 * time.Second

// A Sidecar runs an Envoy and the application that it serves:
//
//   - Envoy first; the application when Envoy is ready.
//   - An Envoy that ends is started again while the application goes on.
//   - At the end of the context Envoy's peers are asked to go elsewhere, then
//     the application is stopped, then Envoy, which carries the application's
//     last requests.
//   - When the application ends by itself, so does the sidecar, with its code.
type Sidecar struct {
	config     SidecarConfig
	log        *slog.Logger
	envoy, app *Process
}

// NewSidecar returns a sidecar that Run starts.
func NewSidecar(c SidecarConfig, log *slog.Logger) *Sidecar {
	c.Envoy.Restart, c.App.Restart = Always, Never
	return &Sidecar{config: c, log: log, envoy: New(c.Envoy, log), app: New(c.App, log)}
}

// Processes returns Envoy's and the application's process, to be observed.
func (s *Sidecar) Processes() (envoy, app *Process) { return s.envoy, s.app }

// Kill ends both at once, for the second Ctrl-C of an impatient user.
func (s *Sidecar) Kill() {
	s.app.Kill()
	s.envoy.Kill()
}

// Run runs both until the end and returns the application's exit code (see
// [ExitCode]); 0 if it was never started. The error says why a part could not
// be run at all. It is called once.
func (s *Sidecar) Run(ctx context.Context) (code int, err error) {
	// Their ends have an order, so they do not hang on ctx.
	envoyCtx, stopEnvoy := context.WithCancel(context.WithoutCancel(ctx))
	var envoyErr error
	envoyDone := make(chan struct{})
	go func() {
		defer close(envoyDone)
		code, envoyErr = s.envoy.Run(envoyCtx)
	}()
	appCode, appErr := s.follow(ctx, envoyDone)
	stopEnvoy()
	<-envoyDone
	if envoyErr != nil {
		return code, fmt.Errorf("run Envoy: %w", envoyErr)
	}
	return appCode, appErr
}

// follow lives as long as the application, or without one as ctx.
func (s *Sidecar) follow(ctx context.Context, envoyDone <-chan struct{}) (code int, err error) {
	// Envoy is restarted until we stop it, so "failed" or "stopped" is the end:
	// it cannot be started, or somebody called Kill.
	st, err := s.envoy.Await(ctx, func(st Status) bool {
		return st.State == Ready || st.State == Failed || st.State == Stopped && st.ended
	})
	switch {
	case err != nil || st.State != Ready:
		return 0, nil // the end came before the application's beginning
	case s.config.App.Start != nil:
		return s.runApp(ctx)
	}
	select {
	case <-ctx.Done():
		s.drain(ctx, envoyDone)
	case <-envoyDone:
	}
	return 0, nil
}

func (s *Sidecar) runApp(ctx context.Context) (int, error) {
	appCtx, stopApp := context.WithCancel(context.WithoutCancel(ctx))
	defer stopApp()
	type result struct {
		code int
		err  error
	}
	ended, appDone := make(chan result, 1), make(chan struct{})
	go func() {
		defer close(appDone)
		code, err := s.app.Run(appCtx)
		ended <- result{code, err}
	}()
	select {
	case <-appDone:
	case <-ctx.Done():
		s.drain(ctx, appDone)
		stopApp()
		<-appDone
	}
	r := <-ended
	if r.err != nil {
		return r.code, fmt.Errorf("run the application: %w", r.err)
	}
	return r.code, nil
}

// drain asks Envoy's peers to leave and gives them the time, or less if done ends.
func (s *Sidecar) drain(ctx context.Context, done <-chan struct{}) {
	if s.config.Drain == nil {
		return
	}
	s.envoy.drain()
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	err := s.config.Drain(ask)
	cancel()
	if err != nil {
		// An Envoy that cannot be asked has no peers either.
		s.log.Warn("Envoy does not drain, stopping at once", "error", err)
		return
	}
	timer := time.NewTimer(s.config.DrainTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}
