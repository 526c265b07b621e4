// Command heddle is the whole of Heddle: the control plane, the sidecar, the local
// supervisor and the tools for people. Each command has a file of its own, which parses,
// wires and runs; what they do is in the packages they wire.
package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/integration/cni"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// env is what a command has of the world, so that tests can run one in-process.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	hurry          <-chan struct{} // closed when the user asks for the end a second time
}

// Exit codes that scripts can rely on. A sidecar exits with its application's code, and
// exec with its command's.
const (
	exitFailure = 1 // the command was understood and did not succeed
	exitUsage   = 2 // the command was not understood

	exitHurried = 130 // what 'up' had started was ended at once: a second Ctrl-C
)

// exitError makes the process exit with a code of its own; without err silently.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	if capture.IsChild(os.Args) {
		os.Exit(capture.Main(os.Args[2:]))
	}
	if cni.IsPlugin(os.Args) {
		os.Exit(cni.Main())
	}
	os.Exit(run(os.Args[1:], &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}))
}

// run executes one command line and gives the exit code.
func run(args []string, e *env) int {
	ctx, hurry, stop := signals()
	defer stop()
	ctx = withLifeline(ctx)
	own := *e
	own.hurry = hurry
	root := rootCommand(&own)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintln(e.stderr, "heddle:", exit.err)
		}
		return exit.code
	}
	fmt.Fprintln(e.stderr, "heddle:", err)
	return exitFailure
}

func rootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "heddle",
		Short: "A service mesh of real Envoy sidecars, on one machine or on Kubernetes",
		Long: `Heddle gives services names, identities, mutual TLS, load balancing, routes and
traces, by a real Envoy beside each workload and one control plane for all.

Start with the example: heddle up -f install/examples/shop/heddle.yaml`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &exitError{exitUsage, fmt.Errorf("%w; see '%s --help'", err, c.CommandPath())}
	})
	for _, group := range commands {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, make := range group.commands {
			c := make(e)
			c.GroupID = group.id
			root.AddCommand(c)
		}
	}
	return root
}

// commands is every command, in the order of the help.
var commands = []struct {
	id, title string
	commands  []func(*env) *cobra.Command
}{
	{"run", "Run a mesh on this machine:", []func(*env) *cobra.Command{
		upCommand, downCommand, restartCommand, psCommand, logsCommand, execCommand,
	}},
	{"install", "Run a mesh on Kubernetes:", []func(*env) *cobra.Command{
		installCommand, upgradeCommand, uninstallCommand, injectCommand,
	}},
	{"change", "Change it and look at it:", []func(*env) *cobra.Command{
		applyCommand, getCommand, describeCommand, deleteCommand, routesCommand,
		proxiesCommand, configCommand, svidCommand, caCommand, dnsCommand, checkCommand,
	}},
	{"part", "Its parts, as 'up' starts them:", []func(*env) *cobra.Command{
		controlplaneCommand, sidecarCommand, awaitCommand, captureCommand, cniCommand, connectCommand, tokenCommand, partsCommand,
	}},
}

// logger writes what operators would act on, one JSON object a line.
func (e *env) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(e.stderr, &slog.HandlerOptions{Level: level}))
}
