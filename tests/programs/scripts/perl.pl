# is written in another language: Perl
# Group: Who hears the notice
# Promise: its save
# Expect: model=2

my $told = 0;
$SIG{USR1} = sub { $told = 1 };
mkdir $ENV{SAVES};
open(my $ready, ">", $ENV{READY}) or die; close $ready;
select(undef, undef, undef, 0.02) until $told;
open(my $model, ">", "$ENV{SAVES}/model") or die;
print $model "2";
close $model;
sleep 60;
