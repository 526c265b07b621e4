package supervise

import (
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prepare gives the command its own process group, and an end to the wait for
// output pipes that grandchildren outside of the group may hold.
func prepare(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if !cmd.SysProcAttr.Setsid { // which makes a group, too
		cmd.SysProcAttr.Setpgid = true
	}
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = time.Second
	}
}

// wait waits for the command's end, kills what it left behind in its group, and
// reaps it. The group is killed first, as only until then the number is its own.
func wait(cmd *exec.Cmd) error {
	for unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // usually ESRCH or only the zombie
	return cmd.Wait()
}

// stop sends the stop signal and kills the group when the grace is over.
func (p *Process) stop(cmd *exec.Cmd, exited <-chan error) error {
	_ = cmd.Process.Signal(p.spec.Stop) // an error means that it has ended
	grace := time.NewTimer(p.spec.Grace)
	defer grace.Stop()
	select {
	case err := <-exited:
		return err
	case <-grace.C:
		p.log.Warn("process does not stop, killing it", "signal", p.spec.Stop.String(), "grace", p.spec.Grace)
	case <-p.kill:
	}
	return p.killGroup(cmd, exited)
}

func (p *Process) killGroup(cmd *exec.Cmd, exited <-chan error) error {
	// The leader through its handle, which cannot hit another process; wait
	// kills the rest of the group.
	_ = cmd.Process.Kill()
	return <-exited
}
