package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/install/local"
)

func psCommand(e *env) *cobra.Command {
	var f projectFlags
	var output string
	c := &cobra.Command{
		Use:     "ps",
		Short:   "List the processes of a project",
		Example: "  heddle ps\n  heddle ps -o json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out := local.Processes{Items: []local.Process{}}
			project, err := f.project()
			if err == nil {
				out, err = local.PS(c.Context(), project)
			}
			if err != nil && !errors.Is(err, errNoProject) {
				return err
			}
			switch output {
			case "json":
				enc := json.NewEncoder(e.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(out)
			case "", "wide":
				if errors.Is(err, errNoProject) {
					fmt.Fprintln(e.stderr, "nothing runs")
				}
				return printProcesses(e, out, output == "wide")
			}
			return &exitError{exitUsage, fmt.Errorf("--output %q is not json or wide", output)}
		},
	}
	f.add(c)
	c.Flags().StringVarP(&output, "output", "o", "", "json or wide")
	return c
}

func printProcesses(e *env, out local.Processes, wide bool) error {
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	header := "NAME\tKIND\tPID\tSTATE\tRESTARTS\tAGE"
	if wide {
		header += "\tADDRESS\tMESSAGE"
	}
	fmt.Fprintln(w, header)
	for _, p := range out.Items {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s", p.Name, p.Kind, p.PID, p.State, p.Restarts, time.Since(p.Since).Round(time.Second))
		if wide {
			fmt.Fprintf(w, "\t%s\t%s", p.Address, p.Message)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
