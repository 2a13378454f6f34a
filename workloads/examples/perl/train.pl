#!/usr/bin/perl
# Simulated annealing of a tour through 60 towns, in Perl: all of its state, random numbers included, is in one file.
use strict;
use warnings;

my ($step, $seed, @tour) = (0, 7, 0 .. 59);
mkdir 'saves';
if (open my $file, '<', 'saves/state') {
    ($step, $seed, @tour) = split ' ', <$file>;
}
my $asked = 0;
$SIG{USR1} = sub { $asked = 1 };

sub save {
    open my $file, '>', 'saves/state.new' or die $!;
    print $file "$step $seed @tour\n";
    close $file or die $!;
    rename 'saves/state.new', 'saves/state' or die $!;
    $asked = 0;
}

sub draw { $seed = ($seed * 1103515245 + 12345) % 2147483648; return int($seed / 2147483648 * shift) }

sub span { my ($from, $to) = @_; return abs(($from * 37) % 61 - ($to * 37) % 61) }

sub length_of { my $sum = 0; $sum += span($tour[$_ - 1], $tour[$_]) for 0 .. $#tour; return $sum }

$| = 1;
print "begins at step $step\n";
while ($step < 600) {
    for (1 .. 50) {
        my ($one, $other, $before) = (draw(60), draw(60), length_of());
        @tour[$one, $other] = @tour[$other, $one];
        @tour[$one, $other] = @tour[$other, $one] if length_of() > $before + draw(1 + (600 - $step) / 10);
    }
    $step++;
    select undef, undef, undef, 0.03;
    save() if $asked;
}
save();
print 'the tour is ', length_of(), " long\n";
