; The driver: interprets launch programs and owns the process's one pool of worker threads.
;
; It is compiled once for each architecture (objects.driver) and calls kernels by address, so that a program needs no
; code of its own: its launches, sizes and control flow are a table of words made by entry.encode.  Written in LLVM IR
; because it needs what TIR cannot say: indirect calls, atomics and threads.  The line in @@ becomes the architecture's spin hint.
;
;   kernel:  i32 (ptr args, ptr scratch, i64 begin, i64 end)    runs tiles begin..end-1; not 0 = failure
;   table:   i64 slots; the first are the header, named in entry.Header; every operand of an instruction is a slot
;   code:    i64 words: opcode, operands...; opcodes and their operands are named in entry.Opcode

; ---------------------------------------------------------------------------------------------------- the pool's state
; A job is one parallel launch.  @state = generation << 32 | open << 31 | number of workers inside.  Workers join a job
; while it is open, by compare-and-swap; the caller works too, closes the job when no tile is left to claim, and waits
; only for those inside: a worker that wakes late delays nobody.
@busy = internal global i32 0                     ; 1 while a call owns the pool; other callers run on their own thread
@state = internal global i64 0, align 128
@threads = internal global i64 1                  ; the caller and the workers created so far
@spin = internal global i64 2000                  ; pauses before a worker goes to sleep
@job.kernel = internal global ptr null, align 128
@job.args = internal global ptr null
@job.scratch = internal global ptr null
@job.stride = internal global i64 0
@job.workers = internal global i64 0
@job.grain = internal global i64 0
@job.code = internal global i32 0, align 128      ; the first failure

; For each worker: { next unclaimed tile, end of its share, 1 when asleep, (padding), mutex at 128, condition at 192 }
%Worker = type { i64, i64, i32, [108 x i8], [64 x i8], [64 x i8] }
@workers = internal global [256 x %Worker] zeroinitializer, align 128

declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
@PAUSE@

; Claims and runs tiles: first the worker's own share, then what the others have left.
define internal void @work(i64 %me) {
entry:
  %kernel = load ptr, ptr @job.kernel
  %args = load ptr, ptr @job.args
  %base = load ptr, ptr @job.scratch
  %stride = load i64, ptr @job.stride
  %count = load i64, ptr @job.workers
  %grain = load i64, ptr @job.grain
  %shift = mul i64 %me, %stride
  %scratch = getelementptr i8, ptr %base, i64 %shift
  br label %share
share:
  %turn = phi i64 [ 0, %entry ], [ %turn.next, %exhausted ]
  %index = add i64 %me, %turn
  %owner = urem i64 %index, %count
  %next = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %owner, i32 0
  %end.at = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %owner, i32 1
  %end = load i64, ptr %end.at
  br label %claim
claim:
  %begin = atomicrmw add ptr %next, i64 %grain monotonic
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %run, label %exhausted
run:
  %until = add i64 %begin, %grain
  %stop = call i64 @llvm.smin.i64(i64 %until, i64 %end)
  %code = call i32 %kernel(ptr %args, ptr %scratch, i64 %begin, i64 %stop)
  %failed = icmp ne i32 %code, 0
  br i1 %failed, label %fail, label %check
fail:
  %old = cmpxchg ptr @job.code, i32 0, i32 %code monotonic monotonic
  ret void
check:
  %other = load atomic i32, ptr @job.code monotonic, align 4
  %stopped = icmp ne i32 %other, 0
  br i1 %stopped, label %done, label %claim
exhausted:
  %turn.next = add i64 %turn, 1
  %more = icmp slt i64 %turn.next, %count
  br i1 %more, label %share, label %done
done:
  ret void
}

; A worker's life: join each job, spin for a while, sleep.
define internal ptr @worker(ptr %argument) {
entry:
  %me = ptrtoint ptr %argument to i64
  %asleep = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %me, i32 2
  %mutex = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %me, i32 4
  %condition = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %me, i32 5
  br label %watch
watch:
  %last = phi i64 [ -1, %entry ], [ %last, %idle ], [ %last, %missed ], [ %generation, %joined ], [ %last, %awake ]
  %spins = phi i64 [ 0, %entry ], [ %spins.next, %idle ], [ %spins, %missed ], [ 0, %joined ], [ 0, %awake ]
  %now = load atomic i64, ptr @state acquire, align 8
  %wanted = call i1 @wanted(i64 %now, i64 %last, i64 %me)
  br i1 %wanted, label %join, label %idle
join:
  %generation = lshr i64 %now, 32
  %inside = add i64 %now, 1
  %swap = cmpxchg ptr @state, i64 %now, i64 %inside acq_rel monotonic
  %swapped = extractvalue { i64, i1 } %swap, 1
  br i1 %swapped, label %joined, label %missed
missed:
  br label %watch
joined:
  call void @work(i64 %me)
  %left = atomicrmw sub ptr @state, i64 1 release
  br label %watch
idle:
  call void @pause()
  %spins.next = add i64 %spins, 1
  %limit = load atomic i64, ptr @spin monotonic, align 8
  %tired = icmp sge i64 %spins.next, %limit
  br i1 %tired, label %sleep, label %watch
sleep:                                            ; says so before looking once more: the caller publishes, then looks
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  store atomic i32 1, ptr %asleep seq_cst, align 4
  %latest = load atomic i64, ptr @state seq_cst, align 8
  %called = call i1 @wanted(i64 %latest, i64 %last, i64 %me)
  br i1 %called, label %rise, label %doze
doze:
  %flag = load atomic i32, ptr %asleep monotonic, align 4
  %still = icmp eq i32 %flag, 1
  br i1 %still, label %wait, label %rise
wait:
  %waited = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %doze
rise:
  store atomic i32 0, ptr %asleep monotonic, align 4
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %awake
awake:
  br label %watch
}

; Whether the pool's state asks worker %me to join: an open job, not the one that it has just left, with a place for it.
define internal i1 @wanted(i64 %now, i64 %last, i64 %me) alwaysinline {
  %bit = and i64 %now, 2147483648
  %open = icmp ne i64 %bit, 0
  %generation = lshr i64 %now, 32
  %fresh = icmp ne i64 %generation, %last
  %count = load atomic i64, ptr @job.workers monotonic, align 8
  %place = icmp slt i64 %me, %count
  %a = and i1 %open, %fresh
  %b = and i1 %a, %place
  ret i1 %b
}

; Creates workers until there are %count threads with the caller; returns how many there are. Needs the pool.
define internal i64 @grow(i64 %count) {
entry:
  %capped = call i64 @llvm.smin.i64(i64 %count, i64 256)
  %thread = alloca i64
  br label %loop
loop:
  %have = load i64, ptr @threads
  %enough = icmp sge i64 %have, %capped
  br i1 %enough, label %done, label %create
create:
  %asleep = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %have, i32 2
  %mutex = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %have, i32 4
  %condition = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %have, i32 5
  store i32 0, ptr %asleep
  %a = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %b = call i32 @pthread_cond_init(ptr %condition, ptr null)
  %argument = inttoptr i64 %have to ptr
  %code = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr %argument)
  %failed = icmp ne i32 %code, 0
  br i1 %failed, label %done, label %created
created:
  %id = load i64, ptr %thread
  %c = call i32 @pthread_detach(i64 %id)
  %more = add i64 %have, 1
  store i64 %more, ptr @threads
  br label %loop
done:
  %usable = call i64 @llvm.smin.i64(i64 %have, i64 %capped)
  ret i64 %usable
}

; Runs %tiles tiles on %count threads, the caller among them. Needs the pool.
define internal i32 @parallel(ptr %kernel, ptr %args, ptr %scratch, i64 %stride, i64 %tiles, i64 %count) {
entry:
  %eighths = mul i64 %count, 8
  %part = sdiv i64 %tiles, %eighths
  %grain = call i64 @llvm.smax.i64(i64 %part, i64 1)
  store ptr %kernel, ptr @job.kernel
  store ptr %args, ptr @job.args
  store ptr %scratch, ptr @job.scratch
  store i64 %stride, ptr @job.stride
  store i64 %grain, ptr @job.grain
  store i32 0, ptr @job.code
  store atomic i64 %count, ptr @job.workers monotonic, align 8
  br label %share
share:
  %w = phi i64 [ 0, %entry ], [ %w.next, %share ]
  %next = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %w, i32 0
  %end.at = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %w, i32 1
  %w.next = add i64 %w, 1
  %low = mul i64 %tiles, %w
  %begin = sdiv i64 %low, %count
  %high = mul i64 %tiles, %w.next
  %end = sdiv i64 %high, %count
  store i64 %begin, ptr %next
  store i64 %end, ptr %end.at
  %shared = icmp eq i64 %w.next, %count
  br i1 %shared, label %publish, label %share
publish:
  %before = load atomic i64, ptr @state monotonic, align 8
  %generation = lshr i64 %before, 32
  %newer = add i64 %generation, 1
  %high.word = shl i64 %newer, 32
  %now = or i64 %high.word, 2147483648
  store atomic i64 %now, ptr @state seq_cst, align 8
  br label %look
look:
  %v = phi i64 [ 1, %publish ], [ %v.next, %looked ]
  %asleep = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %v, i32 2
  %flag = load atomic i32, ptr %asleep seq_cst, align 4
  %sleeps = icmp eq i32 %flag, 1
  br i1 %sleeps, label %wake, label %looked
wake:
  %mutex = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %v, i32 4
  %condition = getelementptr [256 x %Worker], ptr @workers, i64 0, i64 %v, i32 5
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  store atomic i32 0, ptr %asleep monotonic, align 4
  %signalled = call i32 @pthread_cond_signal(ptr %condition)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %looked
looked:
  %v.next = add i64 %v, 1
  %all = icmp sge i64 %v.next, %count
  br i1 %all, label %run, label %look
run:
  call void @work(i64 0)
  %closed = atomicrmw and ptr @state, i64 -2147483649 acq_rel
  br label %wait
wait:
  %tries = phi i64 [ 0, %run ], [ %tries.next, %again ]
  %latest = load atomic i64, ptr @state acquire, align 8
  %inside = and i64 %latest, 4294967295
  %empty = icmp eq i64 %inside, 0
  br i1 %empty, label %done, label %hold
hold:
  call void @pause()
  %tries.next = add i64 %tries, 1
  %often = and i64 %tries.next, 1023
  %long = icmp eq i64 %often, 0
  br i1 %long, label %yield, label %again
yield:                                            ; the worker may have lost its core
  %yielded = call i32 @sched_yield()
  br label %again
again:
  br label %wait
done:
  %code = load atomic i32, ptr @job.code monotonic, align 4
  ret i32 %code
}

; ------------------------------------------------------------------------------------------------------ the interpreter
define internal i64 @get(ptr %table, ptr %at, i64 %operand) alwaysinline {   ; the value of an instruction's operand
  %place = getelementptr i64, ptr %at, i64 %operand
  %slot = load i64, ptr %place
  %address = getelementptr i64, ptr %table, i64 %slot
  %value = load i64, ptr %address
  ret i64 %value
}

define internal void @set(ptr %table, ptr %at, i64 %operand, i64 %value) alwaysinline {
  %place = getelementptr i64, ptr %at, i64 %operand
  %slot = load i64, ptr %place
  %address = getelementptr i64, ptr %table, i64 %slot
  store i64 %value, ptr %address
  ret void
}

define internal i64 @floordiv(i64 %a, i64 %b) alwaysinline {
  %quotient = sdiv i64 %a, %b
  %remainder = srem i64 %a, %b
  %inexact = icmp ne i64 %remainder, 0
  %signs = xor i64 %remainder, %b
  %opposite = icmp slt i64 %signs, 0
  %adjust = and i1 %inexact, %opposite
  %one = zext i1 %adjust to i64
  %floor = sub i64 %quotient, %one
  ret i64 %floor
}

define internal i64 @now(ptr %clock) {           ; nanoseconds of the monotonic clock
  %failed = call i32 @clock_gettime(i32 1, ptr %clock)
  %seconds = load i64, ptr %clock
  %rest.at = getelementptr i64, ptr %clock, i64 1
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %sum = add i64 %whole, %rest
  ret i64 %sum
}

; Runs the program of a table. With a `profile` in its header, adds each launch's nanoseconds to the word at its place. Returns 0, or the code of the kernel that failed, its place in the header's `failed`.
define i32 @effcc_run(ptr %table) {
entry:
  %code.slot = getelementptr i64, ptr %table, i64 0
  %code = load ptr, ptr %code.slot
  %args.slot = getelementptr i64, ptr %table, i64 1
  %args = load ptr, ptr %args.slot
  %scratch.slot = getelementptr i64, ptr %table, i64 2
  %scratch = load ptr, ptr %scratch.slot
  %stride.slot = getelementptr i64, ptr %table, i64 3
  %stride = load i64, ptr %stride.slot
  %threads.slot = getelementptr i64, ptr %table, i64 4
  %asked = load i64, ptr %threads.slot
  %threshold.slot = getelementptr i64, ptr %table, i64 5
  %threshold = load i64, ptr %threshold.slot
  %failed.slot = getelementptr i64, ptr %table, i64 6
  %profile.slot = getelementptr i64, ptr %table, i64 7
  %profile = load ptr, ptr %profile.slot
  %profiled = icmp ne ptr %profile, null
  %clock = alloca [2 x i64]
  %many = icmp sgt i64 %asked, 1
  br i1 %many, label %take, label %begin
take:
  %swap = cmpxchg ptr @busy, i32 0, i32 1 acquire monotonic
  %taken = extractvalue { i32, i1 } %swap, 1
  br i1 %taken, label %own, label %begin
own:
  %usable = call i64 @grow(i64 %asked)
  br label %begin
begin:
  %owner = phi i1 [ false, %entry ], [ false, %take ], [ true, %own ]
  %count = phi i64 [ 1, %entry ], [ 1, %take ], [ %usable, %own ]
  br label %step

step:
  %pc = phi i64 [ 0, %begin ], [ %pc.launch, %launched ], [ %pc.copy, %copy ], [ %target, %jump ],
                [ %pc.branch, %branch ], [ %pc.two, %two ], [ %pc.three, %three ], [ %pc.tiles, %two.words ]
  %at = getelementptr i64, ptr %code, i64 %pc
  %opcode = load i64, ptr %at
  %pc.two = add i64 %pc, 3
  %pc.three = add i64 %pc, 4
  switch i64 %opcode, label %unknown [
    i64 0, label %finish
    i64 1, label %launch
    i64 2, label %copy
    i64 3, label %jump
    i64 4, label %branch
    i64 5, label %move
    i64 6, label %load8
    i64 7, label %load32
    i64 8, label %load64
    i64 9, label %store64
    i64 10, label %add
    i64 11, label %sub
    i64 12, label %mul
    i64 13, label %div
    i64 14, label %mod
    i64 15, label %min
    i64 16, label %max
    i64 17, label %less
    i64 18, label %section.start
  ]

launch:                                           ; kernel, tiles, work, n, n arguments
  %kernel.value = call i64 @get(ptr %table, ptr %at, i64 1)
  %kernel = inttoptr i64 %kernel.value to ptr
  %tiles = call i64 @get(ptr %table, ptr %at, i64 2)
  %work = call i64 @get(ptr %table, ptr %at, i64 3)
  %n.at = getelementptr i64, ptr %at, i64 4
  %n = load i64, ptr %n.at
  %pc.arguments = add i64 %pc, 5
  %pc.launch = add i64 %pc.arguments, %n
  br label %gather
gather:
  %i = phi i64 [ 0, %launch ], [ %i.next, %gathered ]
  %gather.more = icmp slt i64 %i, %n
  br i1 %gather.more, label %gathered, label %decide
gathered:
  %operand = add i64 %i, 5
  %argument = call i64 @get(ptr %table, ptr %at, i64 %operand)
  %argument.at = getelementptr i64, ptr %args, i64 %i
  store i64 %argument, ptr %argument.at
  %i.next = add i64 %i, 1
  br label %gather
decide:
  br i1 %profiled, label %start, label %choose
start:
  %before.now = call i64 @now(ptr %clock)
  br label %choose
choose:
  %before = phi i64 [ 0, %decide ], [ %before.now, %start ]
  %several = icmp sgt i64 %tiles, 1
  %worth = icmp sge i64 %work, %threshold
  %threaded = icmp sgt i64 %count, 1
  %both = and i1 %several, %worth
  %parallel = and i1 %both, %threaded
  br i1 %parallel, label %spread, label %alone
spread:
  %width = call i64 @llvm.smin.i64(i64 %count, i64 %tiles)
  %code.spread = call i32 @parallel(ptr %kernel, ptr %args, ptr %scratch, i64 %stride, i64 %tiles, i64 %width)
  br label %returned
alone:
  %code.alone = call i32 %kernel(ptr %args, ptr %scratch, i64 0, i64 %tiles)
  br label %returned
returned:
  %result = phi i32 [ %code.spread, %spread ], [ %code.alone, %alone ]
  %bad = icmp ne i32 %result, 0
  br i1 %bad, label %failure, label %succeeded
succeeded:
  br i1 %profiled, label %account, label %launched
account:
  %after = call i64 @now(ptr %clock)
  %took = sub i64 %after, %before
  %account.at = getelementptr i64, ptr %profile, i64 %pc
  %spent = load i64, ptr %account.at
  %total = add i64 %spent, %took
  store i64 %total, ptr %account.at
  br label %launched
launched:
  br label %step

section.start:                                        ; section (tiles.ll)
  %section.value = call i64 @get(ptr %table, ptr %at, i64 1)
  %section = inttoptr i64 %section.value to ptr
  br i1 %profiled, label %tiles.start, label %tiles.begin
tiles.start:
  %tiles.before.now = call i64 @now(ptr %clock)
  br label %tiles.begin
tiles.begin:
  %tiles.before = phi i64 [ 0, %section.start ], [ %tiles.before.now, %tiles.start ]
  call void @tiles_begin(ptr %table, ptr %section)
  %tiles.threaded = icmp sgt i64 %count, 1
  br i1 %tiles.threaded, label %tiles.spread, label %tiles.alone
tiles.spread:
  %tiles.spread.code = call i32 @parallel(ptr @tiles_work, ptr %section, ptr %scratch, i64 %stride, i64 %count, i64 %count)
  br label %tiles.ran
tiles.alone:
  %tiles.alone.code = call i32 @tiles_work(ptr %section, ptr %scratch, i64 0, i64 1)
  br label %tiles.ran
tiles.ran:
  %tiles.code.wide = call i64 @word(ptr %section, i64 64)
  %tiles.code = trunc i64 %tiles.code.wide to i32
  %tiles.bad = icmp ne i32 %tiles.code, 0
  br i1 %tiles.bad, label %failure, label %tiles.succeeded
tiles.succeeded:
  br i1 %profiled, label %tiles.account, label %two.words
tiles.account:
  %tiles.after = call i64 @now(ptr %clock)
  %tiles.took = sub i64 %tiles.after, %tiles.before
  %tiles.account.at = getelementptr i64, ptr %profile, i64 %pc
  store i64 %tiles.took, ptr %tiles.account.at
  br label %two.words
two.words:
  %pc.tiles = add i64 %pc, 2
  br label %step

copy:                                             ; destination, source, bytes
  %to.value = call i64 @get(ptr %table, ptr %at, i64 1)
  %from.value = call i64 @get(ptr %table, ptr %at, i64 2)
  %bytes = call i64 @get(ptr %table, ptr %at, i64 3)
  %to = inttoptr i64 %to.value to ptr
  %from = inttoptr i64 %from.value to ptr
  call void @llvm.memmove.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  %pc.copy = add i64 %pc, 4
  br label %step
jump:                                             ; place (an immediate word)
  %target.at = getelementptr i64, ptr %at, i64 1
  %target = load i64, ptr %target.at
  br label %step
branch:                                           ; condition, place: goes there if the condition is 0
  %condition = call i64 @get(ptr %table, ptr %at, i64 1)
  %else.at = getelementptr i64, ptr %at, i64 2
  %else = load i64, ptr %else.at
  %zero = icmp eq i64 %condition, 0
  %pc.branch = select i1 %zero, i64 %else, i64 %pc.two
  br label %step

move:                                             ; destination, source
  %moved = call i64 @get(ptr %table, ptr %at, i64 2)
  br label %write
load8:                                            ; destination, pointer
  %p8.value = call i64 @get(ptr %table, ptr %at, i64 2)
  %p8 = inttoptr i64 %p8.value to ptr
  %v8 = load i8, ptr %p8
  %loaded8 = zext i8 %v8 to i64
  br label %write
load32:
  %p32.value = call i64 @get(ptr %table, ptr %at, i64 2)
  %p32 = inttoptr i64 %p32.value to ptr
  %v32 = load i32, ptr %p32
  %loaded32 = sext i32 %v32 to i64
  br label %write
load64:
  %p64.value = call i64 @get(ptr %table, ptr %at, i64 2)
  %p64 = inttoptr i64 %p64.value to ptr
  %loaded64 = load i64, ptr %p64
  br label %write
write:
  %value.two = phi i64 [ %moved, %move ], [ %loaded8, %load8 ], [ %loaded32, %load32 ], [ %loaded64, %load64 ]
  call void @set(ptr %table, ptr %at, i64 1, i64 %value.two)
  br label %two
store64:                                          ; pointer, value
  %to64.value = call i64 @get(ptr %table, ptr %at, i64 1)
  %to64 = inttoptr i64 %to64.value to ptr
  %stored = call i64 @get(ptr %table, ptr %at, i64 2)
  store i64 %stored, ptr %to64
  br label %two
two:
  br label %step

add:                                              ; arithmetic: destination, a, b
  %add.a = call i64 @get(ptr %table, ptr %at, i64 2)
  %add.b = call i64 @get(ptr %table, ptr %at, i64 3)
  %sum = add i64 %add.a, %add.b
  br label %result3
sub:
  %sub.a = call i64 @get(ptr %table, ptr %at, i64 2)
  %sub.b = call i64 @get(ptr %table, ptr %at, i64 3)
  %difference = sub i64 %sub.a, %sub.b
  br label %result3
mul:
  %mul.a = call i64 @get(ptr %table, ptr %at, i64 2)
  %mul.b = call i64 @get(ptr %table, ptr %at, i64 3)
  %product = mul i64 %mul.a, %mul.b
  br label %result3
div:
  %div.a = call i64 @get(ptr %table, ptr %at, i64 2)
  %div.b = call i64 @get(ptr %table, ptr %at, i64 3)
  %div.zero = icmp eq i64 %div.b, 0
  br i1 %div.zero, label %divided.by.zero, label %div.do
div.do:
  %quotient = call i64 @floordiv(i64 %div.a, i64 %div.b)
  br label %result3
mod:
  %mod.a = call i64 @get(ptr %table, ptr %at, i64 2)
  %mod.b = call i64 @get(ptr %table, ptr %at, i64 3)
  %mod.zero = icmp eq i64 %mod.b, 0
  br i1 %mod.zero, label %divided.by.zero, label %mod.do
mod.do:
  %floor = call i64 @floordiv(i64 %mod.a, i64 %mod.b)
  %multiple = mul i64 %floor, %mod.b
  %rest = sub i64 %mod.a, %multiple
  br label %result3
min:
  %min.a = call i64 @get(ptr %table, ptr %at, i64 2)
  %min.b = call i64 @get(ptr %table, ptr %at, i64 3)
  %least = call i64 @llvm.smin.i64(i64 %min.a, i64 %min.b)
  br label %result3
max:
  %max.a = call i64 @get(ptr %table, ptr %at, i64 2)
  %max.b = call i64 @get(ptr %table, ptr %at, i64 3)
  %most = call i64 @llvm.smax.i64(i64 %max.a, i64 %max.b)
  br label %result3
less:
  %less.a = call i64 @get(ptr %table, ptr %at, i64 2)
  %less.b = call i64 @get(ptr %table, ptr %at, i64 3)
  %less.bit = icmp slt i64 %less.a, %less.b
  %smaller = zext i1 %less.bit to i64
  br label %result3
result3:
  %value.three = phi i64 [ %sum, %add ], [ %difference, %sub ], [ %product, %mul ], [ %quotient, %div.do ],
                         [ %rest, %mod.do ], [ %least, %min ], [ %most, %max ], [ %smaller, %less ]
  call void @set(ptr %table, ptr %at, i64 1, i64 %value.three)
  br label %three
three:
  br label %step

divided.by.zero:
  br label %failure
unknown:
  br label %failure
failure:
  %failure.code = phi i32 [ %result, %returned ], [ %tiles.code, %tiles.ran ], [ -1, %divided.by.zero ], [ -2, %unknown ]
  store i64 %pc, ptr %failed.slot
  br label %finish
finish:
  %final = phi i32 [ 0, %step ], [ %failure.code, %failure ]
  br i1 %owner, label %release, label %done
release:
  store atomic i32 0, ptr @busy release, align 4
  br label %done
done:
  ret i32 %final
}

; A forked child has none of the workers: it starts with an empty pool.
define void @effcc_after_fork() {
  store i32 0, ptr @busy
  store i64 0, ptr @state
  store i64 1, ptr @threads
  ret void
}

define void @effcc_set_spin(i64 %pauses) {
  store atomic i64 %pauses, ptr @spin monotonic, align 8
  ret void
}

define i64 @effcc_threads() {
  %n = load i64, ptr @threads
  ret i64 %n
}

; The addresses of the four, as a tvm-ffi function: the one thing that the loader asks an object for.
@functions = internal constant [4 x ptr] [ptr @effcc_run, ptr @effcc_after_fork, ptr @effcc_set_spin, ptr @effcc_threads]
define i32 @__tvm_ffi_effcc_driver(ptr %self, ptr %arguments, i32 %count, ptr %result) {
  store i64 1, ptr %result                        ; TVMFFIAny: type index 1 = int, then the value
  %value.at = getelementptr i64, ptr %result, i64 1
  store i64 ptrtoint (ptr @functions to i64), ptr %value.at
  ret i32 0
}
