package kubernetes

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Times of a lease, as Kubernetes' own controllers have them: the holder renews every
// leaseRetry, gives up after leaseRenew without success, and others wait leaseDuration from
// when they last saw it renewed, by their own clocks: so clocks need not agree.
const (
	leaseDuration = 15 * time.Second
	leaseRenew    = 10 * time.Second
	leaseRetry    = 2 * time.Second
)

// Leader runs work in one replica at a time, the holder of a Lease.
type Leader struct {
	Client          *Client
	Namespace, Name string // of the Lease
	Identity        string // of this replica, a pod's name
	Log             *slog.Logger
}

// observed is what a replica last saw of the lease, and when.
type observed struct {
	lease *coordinationv1.Lease // nil: none
	at    time.Time
}

// Run calls work each time this replica becomes the leader, with a context that ends with
// the leadership, until ctx is done. The lease is then given up, so that another replica
// takes over at once.
func (l *Leader) Run(ctx context.Context, work func(context.Context) error) error {
	var last observed
	for ctx.Err() == nil {
		if !l.acquire(ctx, &last) {
			wait(ctx, leaseRetry+rand.N(leaseRetry/4))
			continue
		}
		l.Log.Info("leading", "lease", l.Name)
		if err := l.lead(ctx, &last, work); err != nil && ctx.Err() == nil {
			l.Log.Error("the leader's work ended; it is begun again", "lease", l.Name, "error", err)
		}
	}
	return nil
}

// lead runs work while the lease is renewed.
func (l *Leader) lead(ctx context.Context, last *observed, work func(context.Context) error) error {
	working, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- work(working) }()
	renewed := time.Now()
	for {
		select {
		case err := <-done:
			stop()
			l.release(last)
			return err
		case <-time.After(leaseRetry):
		}
		if l.acquire(ctx, last) {
			renewed = time.Now()
		} else if held := last.lease == nil || holder(last.lease) == l.Identity; !held || time.Since(renewed) > leaseRenew {
			l.Log.Warn("no longer leading", "lease", l.Name)
			stop()
			return <-done
		}
	}
}

// acquire takes or renews the lease.
func (l *Leader) acquire(ctx context.Context, last *observed) bool {
	lease, err := l.Client.getLease(ctx, l.Namespace, l.Name)
	if apierrors.IsNotFound(err) {
		lease, err = &coordinationv1.Lease{ObjectMeta: objectMeta(l.Namespace, l.Name)}, nil
	}
	if err != nil {
		l.Log.Debug("read the lease", "lease", l.Name, "error", err)
		return false
	}
	if last.lease == nil || last.lease.ResourceVersion != lease.ResourceVersion {
		*last = observed{lease, time.Now()}
	}
	if other := holder(lease); other != "" && other != l.Identity && time.Since(last.at) < leaseDuration {
		return false
	}
	now := metav1.NowMicro()
	next := lease.DeepCopy()
	if holder(lease) != l.Identity {
		next.Spec.AcquireTime = &now
		transitions := int32(1)
		if t := lease.Spec.LeaseTransitions; t != nil {
			transitions = *t + 1
		}
		next.Spec.LeaseTransitions = &transitions
	}
	seconds := int32(leaseDuration / time.Second)
	next.Spec.HolderIdentity, next.Spec.LeaseDurationSeconds, next.Spec.RenewTime = &l.Identity, &seconds, &now
	return l.write(ctx, next, last)
}

// release gives the lease up.
func (l *Leader) release(last *observed) {
	if last.lease == nil || holder(last.lease) != l.Identity {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaseRetry)
	defer cancel()
	next := last.lease.DeepCopy()
	nobody := ""
	next.Spec.HolderIdentity = &nobody
	l.write(ctx, next, last)
}

// write stores the lease unless somebody else did since it was read.
func (l *Leader) write(ctx context.Context, next *coordinationv1.Lease, last *observed) bool {
	stored, err := l.Client.writeLease(ctx, next)
	if err != nil {
		l.Log.Debug("write the lease", "lease", l.Name, "error", err)
		return false
	}
	*last = observed{stored, time.Now()}
	return true
}

func holder(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
