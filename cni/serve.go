// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// questionLimit is how long a plugin may take to ask.
const questionLimit = 5 * time.Second

// Serve answers plugins on a run folder's socket until the context ends. answers gives
// what there is to say of an attachment, and calls f with every change until f returns
// false or the context, which ends when the plugin has gone, does.
func Serve(ctx context.Context, run string, answers func(ctx context.Context, id ID, f func(Answer) bool)) error {
	socket := filepath.Join(run, Socket)
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("serve plugins: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("serve plugins: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return errors.Join(fmt.Errorf("serve plugins: %w", err), l.Close())
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var group sync.WaitGroup
	defer group.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve plugins: %w", err)
		case err != nil: // no file descriptors, for a moment
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(askAgain):
			}
			continue
		}
		group.Go(func() { serveOne(ctx, conn, answers) })
	}
}

func serveOne(ctx context.Context, conn net.Conn, answers func(context.Context, ID, func(Answer) bool)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.SetReadDeadline(time.Now().Add(questionLimit))
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	var q Question
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &q) != nil || !q.Valid() {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	go func() {
		lines.Scan() // a plugin says no more: it has gone
		cancel()
	}()
	answers(ctx, q.ID, func(a Answer) bool {
		text, err := json.Marshal(a)
		if err == nil {
			_ = conn.SetWriteDeadline(time.Now().Add(questionLimit))
			_, err = conn.Write(append(text, '\n'))
		}
		return err == nil && !a.Ready
	})
}
