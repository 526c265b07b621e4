package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/install/local"
)

func logsCommand(e *env) *cobra.Command {
	f := projectFlags{ended: true}
	var follow bool
	var lines int
	c := &cobra.Command{
		Use:     "logs [NAME...]",
		Short:   "Show what the processes of a project write",
		Long:    `Shows the last lines of every process, or of those named: a workload's are its agent's, its proxy's and its program's.`,
		Example: "  heddle logs -f\n  heddle logs --tail 100 api-v1-0",
		RunE: func(c *cobra.Command, names []string) error {
			project, err := f.project()
			if err != nil {
				return err
			}
			return showLogs(c.Context(), e.stdout, project, names, lines, follow)
		},
	}
	f.addAs(c, "") // -f follows
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new lines until interrupted")
	c.Flags().IntVar(&lines, "tail", 20, "how many lines of the past to show")
	return c
}

// showLogs prints logs, each line with its process's name where there are several.
func showLogs(ctx context.Context, out io.Writer, project local.Project, names []string, lines int, follow bool) error {
	files, err := filepath.Glob(project.Log("*"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("project %s has no logs: it was never started", project.Name)
	}
	slices.Sort(files)
	known := map[string]string{}
	for _, file := range files {
		known[strings.TrimSuffix(filepath.Base(file), ".log")] = file
	}
	for _, n := range names {
		if known[n] == "" {
			return fmt.Errorf("there is no log of %q; see 'heddle ps'", n)
		}
	}
	var mu sync.Mutex // held while a line is written
	var group sync.WaitGroup
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".log")
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		prefix := name + " | "
		if len(names) == 1 {
			prefix = ""
		}
		group.Add(1)
		go func() {
			defer group.Done()
			printLog(ctx, file, lines, follow, func(line string) {
				mu.Lock()
				defer mu.Unlock()
				fmt.Fprintln(out, prefix+line)
			})
		}()
		if !follow {
			group.Wait() // one after the other
		}
	}
	group.Wait()
	return nil
}

// printLog gives the last lines of a file, and what is added to it until the context is
// done. A file that is replaced by a shorter one is read from its beginning.
func printLog(ctx context.Context, path string, lines int, follow bool, print func(string)) {
	for _, line := range strings.Split(local.Tail(path, lines), "\n") {
		if line != "" {
			print(line)
		}
	}
	f, err := os.Open(path)
	if err != nil || !follow {
		return
	}
	defer func() { f.Close() }()
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return
	}
	r := bufio.NewReader(f)
	for partial := ""; ; {
		line, err := r.ReadString('\n')
		partial += line
		if err == nil {
			print(strings.TrimSuffix(partial, "\n"))
			partial = ""
			continue
		}
		if !errors.Is(err, io.EOF) {
			return
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return
		}
		if next := replaced(f, path); next != nil {
			f.Close()
			f = next
			r.Reset(f)
		}
	}
}

// replaced opens the file at path if it is another one than f.
func replaced(f *os.File, path string) *os.File {
	was, err1 := f.Stat()
	is, err2 := os.Stat(path)
	if err1 != nil || err2 != nil || os.SameFile(was, is) {
		return nil
	}
	next, err := os.Open(path)
	if err != nil {
		return nil
	}
	return next
}
