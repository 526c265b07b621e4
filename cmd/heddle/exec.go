package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/install/local"
)

func execCommand(e *env) *cobra.Command {
	var f projectFlags
	c := &cobra.Command{
		Use:   "exec WORKLOAD -- COMMAND [ARG...]",
		Short: "Run a command in a workload's network",
		Long: `Runs a command where a workload's program runs: with its addresses, its DNS and its
proxy. What it calls sees the workload's identity. The exit code is the command's.`,
		Example: "  heddle exec frontend-0 -- curl -s http://api/version",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			project, err := f.project()
			if err != nil {
				return err
			}
			command := args[1:]
			if command[0] == "--" {
				command = command[1:]
			}
			code, err := local.Exec(c.Context(), project, args[0], command, [3]*os.File{os.Stdin, os.Stdout, os.Stderr})
			if err != nil || code != 0 {
				return &exitError{max(code, exitFailure), err}
			}
			return nil
		},
	}
	f.add(c)
	c.Flags().SetInterspersed(false)
	return c
}
