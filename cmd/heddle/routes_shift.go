package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// shiftFlags are the flags of routes shift.
type shiftFlags struct {
	applyFlags
	over  time.Duration
	steps int
	port  uint16
}

func routesShiftCommand(e *env) *cobra.Command {
	var f shiftFlags
	c := &cobra.Command{
		Use:   "shift SERVICE VERSION --over TIME",
		Short: "Move a service's requests to a version bit by bit",
		Long: `Raises the share of a version to 100 percent in even steps; the other versions keep their
proportions. Each step waits until every proxy holds it. When a proxy refuses one, or the
command is interrupted, it stops there: the last step stays, and 'heddle routes undo
SERVICE' goes back to before the first.`,
		Example: `  heddle routes shift api v2 --over 10m
  heddle routes shift api v2 --over 1h --steps 20`,
		Args:              args(cobra.ExactArgs(2)),
		ValidArgsFunction: completeNames(&f.clientFlags, mesh.KindService),
		RunE: func(c *cobra.Command, given []string) error {
			if f.over <= 0 || f.steps < 1 || f.steps > 100 {
				return usagef("--over must be more than 0, and --steps from 1 to 100")
			}
			return f.run(c, func(ctx context.Context, cl *client) error {
				s, err := cl.openSplit(ctx, f.namespace, given[0], f.port)
				if err != nil {
					return err
				}
				s.warn(e.stderr)
				return f.shift(ctx, e, s, given[1])
			})
		},
	}
	f.add(c)
	c.Flags().DurationVar(&f.over, "over", 0, "how long it takes, such as 10m")
	c.Flags().IntVar(&f.steps, "steps", 10, "number of steps")
	c.Flags().Uint16Var(&f.port, "port", 0, "port of the service, where it has several for HTTP")
	c.Flags().DurationVar(&f.timeout, "timeout", 30*time.Second, "how long a step may take to be on every proxy")
	must(c.MarkFlagRequired("over"))
	return c
}

// percents are the shares of the target step by step, each larger than the one before.
func percents(from uint32, steps int) []uint32 {
	var out []uint32
	for i := 1; i <= steps; i++ {
		p := from + (100-from)*uint32(i)/uint32(steps)
		if p > from && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func (f *shiftFlags) shift(ctx context.Context, e *env, s *splitting, key string) error {
	base, err := s.current()
	if err != nil {
		return err
	}
	target, err := s.backend(key)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(base, func(b backendRef) bool { return b.Name == target.Name && b.Port == target.Port })
	if at < 0 {
		base, at = append(slices.Clone(base), withWeight(target, 0)), len(base)
	}
	plan := percents(shareOf(base, at), f.steps)
	if len(plan) == 0 {
		fmt.Fprintf(e.stdout, "%s has all of the requests already\n", target.Name)
		return nil
	}
	reached := shareOf(base, at)
	for _, percent := range plan {
		select {
		case <-ctx.Done():
			return stopped(s.service, target.Name, reached, errors.New("interrupted"))
		case <-time.After(f.over / time.Duration(len(plan))):
		}
		next := shifted(base, at, percent)
		// A step that has begun is finished, so that what we say of it is true.
		reply, err := s.set(context.WithoutCancel(ctx), e.stderr, next, false)
		if err != nil {
			return stopped(s.service, target.Name, reached, s.cl.explainAny(err))
		}
		s.remember, reached = false, percent // one undo takes all steps back
		fmt.Fprintf(e.stdout, "%s %s\n", time.Now().Format(time.TimeOnly), weights(next, s.namespace))
		if err := waitLive(ctx, e, s.cl, reply, f.timeout); err != nil {
			if ctx.Err() != nil {
				err = errors.New("interrupted")
			}
			return stopped(s.service, target.Name, reached, s.cl.explainAny(err))
		}
	}
	return nil
}

// explainAny explains an error of a call, and leaves others as they are.
func (c *client) explainAny(err error) error {
	if errors.Is(err, errTold) {
		return errors.New("a proxy refuses it")
	}
	return c.explain(err)
}

// stopped says in which state a shift ended.
func stopped(service, target string, percent uint32, why error) error {
	return fmt.Errorf("stopped with %s at %d %% of the requests of %s: %w\nThat stays as it is. Go on with 'heddle routes shift', or go back with 'heddle routes undo %s'",
		target, percent, service, why, service)
}
