package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/install/local"
)

func restartCommand(e *env) *cobra.Command {
	var f projectFlags
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "restart WORKLOAD|SERVICE...",
		Short: "Stop and start workloads again, without losing a request",
		Long: `Stops a workload, or those of a service one after the other, and starts each again, with
its proxy. Requests under way are answered first; the next workload is touched when the
one before it is ready, so a service with several goes on answering.`,
		Example: "  heddle restart api-0\n  heddle restart api",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			project, err := f.project()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			for _, name := range names {
				done, err := local.Restart(ctx, project, name)
				fmt.Fprint(e.stdout, done)
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(c)
	c.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait until all are ready again")
	return c
}
