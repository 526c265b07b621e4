package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/install/local"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// upFlags are the flags of "heddle up".
type upFlags struct {
	file, capture string
	detach, wait  bool
	quiet         bool // copy no output: the log files have it
	timeout       time.Duration
}

func upCommand(e *env) *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "up -f FILE",
		Short: "Start the control plane and every service of a file, each with a sidecar",
		Long: `Starts what a heddle.yaml names, in the foreground until Ctrl-C, or with --detach in the
background. No root is needed: without it the mesh runs in a user namespace, and where
that is forbidden the services call each other through ports of their sidecars.

In the foreground the first Ctrl-C (or SIGTERM) ends everything in good order: requests
under way are answered, and the exit code is 0. The second kills the programs and their
proxies at once, with exit code 130. Both take down all that was set up.`,
		Example: `  heddle up -f install/examples/shop/heddle.yaml
  heddle up -f heddle.yaml --detach --wait`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), e) },
	}
	fs := c.Flags()
	fs.StringVarP(&f.file, "file", "f", defaultFile, "file with the services")
	fs.StringVar(&f.capture, "capture", "auto", "how traffic gets to the proxies: auto, transparent, rootless or explicit")
	fs.BoolVarP(&f.detach, "detach", "d", false, "go on in the background")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "do not show what the processes write; it is in their log files")
	fs.BoolVar(&f.wait, "wait", false, "with --detach: return when every service is ready")
	fs.DurationVar(&f.timeout, "timeout", 5*time.Minute, "with --wait: how long")
	return c
}

func (f *upFlags) run(ctx context.Context, e *env) error {
	files, inside := local.Inside()
	o, err := f.options(ctx, e, inside)
	if err != nil {
		return err
	}
	if inside {
		o.Files = files
		return runProject(ctx, o)
	}
	if err := o.Project.AwaitFree(ctx, e.stderr); err != nil {
		return err
	}
	if f.detach {
		return f.runDetached(ctx, e, o)
	}
	return f.runHere(ctx, e, o)
}

// options reads the file and finds out how to run it.
func (f *upFlags) options(ctx context.Context, e *env, inside bool) (*local.Options, error) {
	config, err := local.Load(f.file)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	project, err := local.OpenProject(stateHome(), config.Name)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o := &local.Options{
		Config: config, Project: project, Bin: filepath.Dir(self), Hurry: e.hurry,
		Log: slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	reason := "you said so"
	if f.capture == "auto" {
		o.Capture, reason = capture.Detect(ctx)
	} else if o.Capture, err = capture.ParseMode(f.capture); err != nil {
		return nil, &exitError{exitUsage, err}
	}
	if !f.detach && !f.quiet {
		o.Verbose = e.stdout
	}
	if !inside {
		fmt.Fprintf(e.stderr, "capture: %s (%s)\n", o.Capture, reason)
	}
	f.capture = o.Capture.String()
	return o, local.Prepare(ctx, o, e.stderr)
}

// runHere supervises in this process, or in a child inside a user namespace.
func (f *upFlags) runHere(ctx context.Context, e *env, o *local.Options) error {
	if err := o.CheckPorts(); err != nil {
		return err
	}
	building, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.Config.Jaeger {
		go func() {
			if err := local.BuildJaeger(building, io.Discard); err != nil && building.Err() == nil {
				fmt.Fprintln(e.stderr, "heddle: Jaeger cannot be built, traces are lost:", err)
			}
		}()
	}
	if o.Capture != capture.Rootless {
		return runProject(ctx, o)
	}
	cmd, err := local.EnterRootless(context.WithoutCancel(ctx), o, append([]string{"up"}, f.args()...))
	if err != nil {
		return err
	}
	// Ctrl-C goes to all of the terminal's foreground group; the child shall count each
	// one once, as we pass it on.
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go passOn(cmd.Process, ctx.Done(), o.Hurry, ended)
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return &exitError{code: exit.ExitCode()} // it has said why
	}
	return err
}

// passOn passes the user's wishes on to a child until it has ended. The signals differ, as
// two of a kind may arrive as one.
func passOn(child *os.Process, end, hurry, ended <-chan struct{}) {
	for _, wish := range []struct {
		said   <-chan struct{}
		signal os.Signal
	}{{end, syscall.SIGTERM}, {hurry, syscall.SIGINT}} {
		select {
		case <-wish.said:
			_ = child.Signal(wish.signal) // an error means that it has ended
		case <-ended:
			return
		}
	}
}

// runProject supervises in this process.
func runProject(ctx context.Context, o *local.Options) error {
	err := local.Run(ctx, *o)
	if errors.Is(err, local.ErrHurried) {
		return &exitError{exitHurried, err}
	}
	return err
}

// args are the flags for another run of the same command.
func (f *upFlags) args() []string {
	path, err := filepath.Abs(f.file)
	if err != nil {
		path = f.file
	}
	args := []string{"-f", path, "--capture", f.capture}
	if f.detach || f.quiet {
		args = append(args, "--quiet")
	}
	return args
}

// runDetached starts the same command in the background.
func (f *upFlags) runDetached(ctx context.Context, e *env, o *local.Options) error {
	if err := o.CheckPorts(); err != nil {
		return err
	}
	if err := o.Project.Make(); err != nil {
		return err
	}
	out, err := os.OpenFile(o.Project.Log("up"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command("/proc/self/exe", append([]string{"up"}, f.args()...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	if err := f.awaitStart(ctx, e, o, ended); err != nil {
		return fmt.Errorf("%w\nall logs are in %s; end what runs with 'heddle down -f %s'", err, filepath.Dir(o.Project.Log("up")), f.file)
	}
	f.greet(e, o)
	return nil
}

func (f *upFlags) awaitStart(ctx context.Context, e *env, o *local.Options, ended <-chan error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case err := <-ended:
			cancel(errors.Join(errors.New("the supervisor ended: "+local.Tail(o.Project.Log("up"), 5)), err))
		case <-ctx.Done():
		}
	}()
	for !o.Project.Running() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if !f.wait {
		return nil
	}
	if err := local.WaitReady(ctx, o.Project, o.Config.Workloads(), e.stderr); err != nil {
		if cause := context.Cause(ctx); ctx.Err() != nil && !errors.Is(cause, ctx.Err()) {
			return cause
		}
		return err
	}
	return nil
}

// greet says where to look.
func (f *upFlags) greet(e *env, o *local.Options) {
	fmt.Fprintf(e.stdout, "%s runs.\n", o.Project.Name)
	for _, line := range o.Addresses() {
		fmt.Fprintln(e.stdout, "  "+line)
	}
	fmt.Fprintf(e.stdout, "Next: heddle ps, heddle get services, heddle logs -f; heddle down -f %s ends it.\n", f.file)
}
